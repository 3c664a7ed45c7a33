"""The subcommands of ``nnUNetv2_lightm``: every argument parser, imported only when its command is called."""
