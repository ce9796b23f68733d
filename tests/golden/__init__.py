"""Logs written by earlier versions. Every later version reads them; none is ever written again."""
