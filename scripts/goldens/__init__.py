"""The rows of scripts/make_model_goldens.py, a file for each group of families."""
