"""MARBLE: published tasks under named protocols, on features that are computed once.

`tasks` says what a task is, `protocols` how its probe is trained and tested, `run` does
it, and `page` writes what it means. Probes, features and intervals are those of
`muq_plugins.evaluation.probing`.
"""
