// Keys, key sets and tokens of jose.
import * as jose from 'jose'
import { serve } from './serve.js'

// The public sets by their URL: each keeps what it has fetched.
const remotes = new Map()

function remote(url) {
  if (!remotes.has(url)) remotes.set(url, jose.createRemoteJWKSet(new URL(url)))
  return remotes.get(url)
}

serve({
  // generate returns both halves of a new key as JSON Web Keys.
  async generate({ alg, options }) {
    const { publicKey, privateKey } = await jose.generateKeyPair(alg, { extractable: true, ...options })
    return { public: await jose.exportJWK(publicKey), private: await jose.exportJWK(privateKey) }
  },

  async generatePEM({ alg }) {
    const { publicKey, privateKey } = await jose.generateKeyPair(alg, { extractable: true })
    return { public: await jose.exportSPKI(publicKey), private: await jose.exportPKCS8(privateKey) }
  },

  async generateSecret({ alg }) {
    return jose.exportJWK(await jose.generateSecret(alg, { extractable: true }))
  },

  // sign returns a token with this header and these claims.
  async sign({ key, header, claims }) {
    return new jose.SignJWT(claims).setProtectedHeader(header).sign(await jose.importJWK(key, header.alg))
  },

  // verify verifies a token with the key set at a URL, or with one key.
  async verify({ token, url, key, options }) {
    const keys = url ? remote(url) : await jose.importJWK(key, options.algorithms[0])
    const { payload, protectedHeader } = await jose.jwtVerify(token, keys, options)
    return { claims: payload, header: protectedHeader }
  },
})
