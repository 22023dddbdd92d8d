"""What a model of audio and text knows without training on a task.

Tagging, classes and retrieval both ways: `clips` says what there is to know and keeps
what the model hears, `scores` compares it with texts, `page` writes it down.
"""
