"""The pieces of ``scripts/train_demo_encoders.py``: data, models, training and evaluation of the two demo encoders."""
