"""Metrics, probes, figures and reports.

Each module is imported on its own, because the light ones (`codes`, `health`,
`metrics_log`) are used in the middle of a training, where matplotlib and
scikit-learn have no business.
"""
