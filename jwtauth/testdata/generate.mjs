// Writes node.json: a token for every algorithm, made by Node and nothing else.
//
//   node generate.mjs > node.json
import { constants, createHmac, generateKeyPairSync, randomBytes, sign } from 'node:crypto';

const b64 = (data) => Buffer.from(data).toString('base64url');
const payload = b64(JSON.stringify({
  iss: 'https://issuer.example', aud: ['https://api.example', 'other'], sub: 'ann',
  iat: 1767225600, exp: 4102444800, scope: 'read write',
}));

const ec = (namedCurve) => generateKeyPairSync('ec', { namedCurve });
const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 });
const makers = {
  HS: (bits) => {
    const secret = randomBytes(bits / 8);
    return [{ kty: 'oct', k: b64(secret) }, (text) => createHmac(`sha${bits}`, secret).update(text).digest()];
  },
  RS: (bits) => asymmetric(rsa(), `sha${bits}`, {}),
  PS: (bits) => asymmetric(rsa(), `sha${bits}`, {
    padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
  }),
  ES: (bits) => asymmetric(ec({ 256: 'P-256', 384: 'P-384', 512: 'P-521' }[bits]), `sha${bits}`, { dsaEncoding: 'ieee-p1363' }),
};

function asymmetric({ publicKey, privateKey }, hash, options) {
  return [publicKey.export({ format: 'jwk' }), (text) => sign(hash, Buffer.from(text), { key: privateKey, ...options })];
}

function vector(alg, [jwk, signer]) {
  const kid = `node-${alg}`;
  const text = `${b64(JSON.stringify({ alg, typ: 'JWT', kid }))}.${payload}`;
  return { alg, key: JSON.stringify({ ...jwk, kid, alg, use: 'sig' }), token: `${text}.${b64(signer(text))}` };
}

const vectors = [];
for (const family of ['HS', 'RS', 'PS', 'ES']) {
  for (const bits of [256, 384, 512]) vectors.push(vector(family + bits, makers[family](bits)));
}
for (const alg of ['EdDSA', 'Ed25519']) vectors.push(vector(alg, asymmetric(generateKeyPairSync('ed25519'), null, {})));
console.log(JSON.stringify(vectors, null, 1));
