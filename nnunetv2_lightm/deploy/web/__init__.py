"""A trained model as a web page in one file, which opens from disk and segments without a server.

``engine`` compiles the C++ engine to WebAssembly, ``page`` puts it, the model and the scripts of ``page/`` into one
HTML file. The scripts are ES modules: they run as they are in Node, and are joined for the page.
"""
