"""A comparison's results as pages: tables, plots, pictures of the same cases, Markdown and HTML."""
