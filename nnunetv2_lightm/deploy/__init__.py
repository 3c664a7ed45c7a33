"""A trained model for others: in one file for the engine (``runtime/``), or in a zip for nnU-Net elsewhere.

``model_folder`` reads what nnU-Net trained, ``pipeline`` says in plain JSON what nnU-Net does around the network,
``stored`` makes the weights small, ``bundle``, ``onnx_file`` and ``nnunet_zip`` write, ``check`` compares what is
written with the network that was trained. ``web`` makes a page of a bundle.
"""
