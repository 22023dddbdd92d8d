"""Published data sets with labels: their files as they are.

One file for each data set (`magnatagatune`, `mtg_jamendo`, ...) reads its published
annotations; `tagged` finds the audio.
"""
