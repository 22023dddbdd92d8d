"""Probes: what can be read off every layer of a frozen encoder, label by label.

In the order of the data: `clips` (what is labelled), `tasks` (who trains and who
tests), `features` (what the encoder says, once), `readers` (the probes), `results`
(scores and files), `run` and `page`.
"""
