"""The console command ``muq-plugins``: one file for each sub-command.

Nothing here imports torch before a sub-command needs it: help comes at once, and
``doctor`` runs where torch or torchaudio are broken.
"""
