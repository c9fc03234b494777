"""Operators made of other operators: softmax, normalization, attention, LSTM; each computes with known integers."""
