"""bigxfer: scaling studies of transfer learning in medical imaging."""

__version__ = "0.1.0"
