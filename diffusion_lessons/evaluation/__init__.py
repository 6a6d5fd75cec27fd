"""How good are the pictures, and do they match their prompts?"""
