// An authorization server built with oidc-provider, in which alice logs in and consents
// without a page.
import { createServer } from 'node:http'
import { exportJWK, generateKeyPair } from 'jose'
import Provider from 'oidc-provider'
import { serve } from './serve.js'

let configuration, issuer, handler

// useNewKey makes a server with one new key take all further requests. The key has an alg
// if it is named. All servers have one storage.
async function useNewKey(alg, named) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true })
  configuration.jwks = { keys: [{ ...await exportJWK(privateKey), use: 'sig', ...named && { alg } }] }
  const provider = new Provider(issuer, configuration)
  const callback = provider.callback()
  handler = (req, res) => req.url.startsWith('/interaction/') ? interact(provider, req, res) : callback(req, res)
}

async function interact(provider, req, res) {
  const { prompt, params } = await provider.interactionDetails(req, res)
  if (prompt.name === 'login') {
    return provider.interactionFinished(req, res, { login: { accountId: 'alice' } })
  }
  const grant = new provider.Grant({ accountId: 'alice', clientId: params.client_id })
  grant.addOIDCScope(params.scope)
  grant.addResourceScope(params.resource, params.scope)
  return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } })
}

serve({
  // start starts the server for an API with tokens of a format, opaque or jwt, signed with
  // an algorithm, and returns the issuer.
  async start({ audience, format, algorithm, named, redirect }) {
    const server = createServer((req, res) => handler(req, res))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    issuer = `http://127.0.0.1:${server.address().port}`
    configuration = {
      clients: [
        {
          client_id: 'app', application_type: 'native', token_endpoint_auth_method: 'none', redirect_uris: [redirect],
          grant_types: ['authorization_code', 'refresh_token'], id_token_signed_response_alg: algorithm
        },
        {
          client_id: 'job', client_secret: 'secret-of-the-job', redirect_uris: [], response_types: [],
          grant_types: ['client_credentials'], id_token_signed_response_alg: algorithm
        },
        {
          client_id: 'api', client_secret: 'secret-of-the-api', redirect_uris: [], response_types: [],
          grant_types: [], id_token_signed_response_alg: algorithm
        }
      ],
      // Clients that register themselves may name these.
      scopes: ['openid', 'offline_access', 'orders:read', 'orders:write'],
      cookies: { keys: ['secret-of-the-cookies'] },
      features: {
        clientCredentials: { enabled: true },
        devInteractions: { enabled: false },
        dPoP: { enabled: true },
        introspection: { enabled: true },
        registration: { enabled: true },
        revocation: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => audience,
          useGrantedResource: () => true,
          getResourceServerInfo: () => ({
            audience, scope: 'orders:read orders:write', accessTokenFormat: format, jwt: { sign: { alg: algorithm } }
          })
        }
      },
      findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
      interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
      // As is usual for public clients, each refresh returns another refresh token.
      rotateRefreshToken: true,
      ttl: {
        AccessToken: 600, AuthorizationCode: 60, ClientCredentials: 600, Grant: 3600,
        IdToken: 600, Interaction: 60, RefreshToken: 3600, Session: 3600
      }
    }
    await useNewKey(algorithm, named)
    return issuer
  },

  // rotate replaces the key without notice.
  async rotate({ algorithm, named }) {
    await useNewKey(algorithm, named)
  }
})
