"""The web page of ``muq-plugins serve``."""
