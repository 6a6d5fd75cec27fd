"""How good are the pictures, and do they follow their prompts?"""
