"""Several run folders side by side: which are of one method, what each has measured, when. Reads, and writes nothing."""
