"""What does a trained model do with tokens? Probes that write Parquet for `analysis`."""
