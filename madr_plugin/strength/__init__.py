"""Decides how strongly MADR's gradients act: balance, measured noise, controllers."""
