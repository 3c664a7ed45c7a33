"""Trained models to hand out: data, split, training, scores on cases that nothing has seen, a zip with a model card.

    python -m release.weights hippocampus FOLDER
    python -m release.weights lungs FOLDER

``models`` says which there are, ``hold_out`` makes the data set, ``make`` does all steps, ``card`` writes the card.
"""
