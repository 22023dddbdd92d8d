"""Is a loss still that of guessing?

Authors
 * The MuQ for SpeechBrain team 2026
"""

# An untrained model is within 1 % of chance; twice that still is no learning.
CHANCE_MARGIN = 0.02


def is_at_chance(loss: float, chance: float) -> bool:
    """Tells whether a loss is no better than that of guessing.

    Arguments
    ---------
    loss : float
        Of a model, positive.
    chance : float
        Of guessing.

    Returns
    -------
    bool
        True if nothing is learned.

    Example
    -------
    >>> is_at_chance(4.13, chance=4.14), is_at_chance(4.0, chance=4.14)
    (True, False)
    """
    return loss >= (1 - CHANCE_MARGIN) * chance
