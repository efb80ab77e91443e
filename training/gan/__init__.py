"""Which GAN: the methods of the literature as rows that one loss assembles. methods.py is the table, loss.py what the loop calls."""
