"""The commands of ``nnUNetv2_lightm``: one module each, with ``main(argv) -> exit code``."""
