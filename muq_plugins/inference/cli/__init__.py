"""The command ``muq-plugins``."""
