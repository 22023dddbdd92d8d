"""Probes: what can be read off every layer of a frozen encoder, label by label.

In the order of the data: `clips` (what is labelled), `windows`, `features` and `cache`
(what the encoder says, once), `splitting` and `tasks` (who trains and who tests),
`readers`, `metrics` and `reading` (the probes), `result` and `storage` (what is kept),
`run`, `verdicts` and `report`.
"""
