"""What is a trial, what came of it, and what keeps that safe?"""
