"""Measuring a bundle on sessions: what its graph predicts, beside baselines; and sessions that are anomalies."""
