"""A trained model outside of nnU-Net: in one file for the engine (``runtime/``).

``model_folder`` reads what nnU-Net trained, ``pipeline`` says in plain JSON what nnU-Net does around the network,
``bundle`` and ``onnx_file`` write, ``check`` compares what is written with the network that was trained. ``web`` makes
a page of a bundle.
"""
