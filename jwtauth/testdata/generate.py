"""Writes python.json: a token for every algorithm, made by the Python packages
hmac and cryptography (https://cryptography.io) and nothing else.

    python3 generate.py > python.json
"""
import base64, hashlib, hmac, json, os
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


PAYLOAD = b64(json.dumps({
    "iss": "https://issuer.example", "aud": "https://api.example", "sub": "ann",
    "iat": 1767225600, "exp": 4102444800, "scope": ["read", "write"],
}).encode())
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}


def public_pem(private):
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def signer(alg):
    """Returns the key that verifies and the function that signs."""
    family, bits = alg[:2], alg[2:]
    if family == "HS":
        secret = os.urandom(int(bits) // 8)
        return b64(secret), lambda text: hmac.new(secret, text, getattr(hashlib, "sha" + bits)).digest()
    if family in ("RS", "PS"):
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pad = padding.PKCS1v15()
        if family == "PS":
            pad = padding.PSS(mgf=padding.MGF1(HASHES[bits]), salt_length=padding.PSS.DIGEST_LENGTH)
        return public_pem(private), lambda text: private.sign(text, pad, HASHES[bits])
    if family == "ES":
        private = ec.generate_private_key(CURVES[bits])
        size = (private.key_size + 7) // 8

        def sign(text):
            r, s = decode_dss_signature(private.sign(text, ec.ECDSA(HASHES[bits])))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        return public_pem(private), sign
    private = ed25519.Ed25519PrivateKey.generate()
    return public_pem(private), private.sign


def vector(alg):
    key, sign = signer(alg)
    text = b64(json.dumps({"typ": "JWT", "alg": alg}).encode()) + "." + PAYLOAD
    return {"alg": alg, "key": key, "token": text + "." + b64(sign(text.encode()))}


ALGORITHMS = [f + b for f in ("HS", "RS", "PS", "ES") for b in ("256", "384", "512")] + ["EdDSA", "Ed25519"]
print(json.dumps([vector(alg) for alg in ALGORITHMS], indent=1))
