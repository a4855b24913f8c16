// A client of an API, built with oauth4webapi. It knows nothing but the URL of the API and
// its own registration.
import * as oauth from 'oauth4webapi'
import { serve } from './serve.js'

const insecure = { [oauth.allowInsecureRequests]: true }

let api, redirect, client, server, verifier, tokens
let options = insecure

// request sends a request with a token. A challenge in the response is thrown.
async function request(path, token) {
  const response = await oauth.protectedResourceRequest(token, 'GET', new URL(path, api), undefined, undefined, options)
  return { status: response.status, body: await response.json() }
}

serve({
  // challenge returns the challenges to a request with a token, by default with that of
  // the client.
  async challenge({ path, token }) {
    try {
      return { unexpected: await request(path, token ?? tokens.access_token) }
    } catch (error) {
      if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error
      return error.cause
    }
  },

  // discover finds the authorization server of the API.
  async discover(params) {
    ({ redirect } = params)
    api = new URL(params.api)
    client = { client_id: params.client }
    const resource = await oauth.processResourceDiscoveryResponse(api, await oauth.resourceDiscoveryRequest(api, insecure))
    const issuer = new URL(resource.authorization_servers[0])
    server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
    return resource
  },

  // authorize returns the URL at which a browser authorizes the client.
  async authorize({ scope }) {
    verifier = oauth.generateRandomCodeVerifier()
    const url = new URL(server.authorization_endpoint)
    url.search = new URLSearchParams({
      client_id: client.client_id, redirect_uri: redirect, response_type: 'code', scope, prompt: 'consent',
      resource: api.href, code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256'
    })
    return url.href
  },

  // exchange exchanges the code in the parameters with which the browser has come back.
  async exchange({ query }) {
    const parameters = oauth.validateAuthResponse(server, client, new URLSearchParams(query))
    const response = await oauth.authorizationCodeGrantRequest(server, client, oauth.None(), parameters, redirect, verifier, options)
    tokens = await oauth.processAuthorizationCodeResponse(server, client, response)
    return tokens.scope
  },

  // bind makes the client bind its tokens to a key (RFC 9449).
  async bind() {
    options = { ...insecure, DPoP: oauth.DPoP(client, await oauth.generateKeyPair('ES256')) }
  },

  tokens() {
    return tokens
  },

  async refresh() {
    const response = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), tokens.refresh_token, options)
    tokens = await oauth.processRefreshTokenResponse(server, client, response)
    return tokens.scope
  },

  async revoke() {
    await oauth.processRevocationResponse(
      await oauth.revocationRequest(server, client, oauth.None(), tokens.access_token, insecure))
  },

  async request({ path }) {
    return request(path, tokens.access_token)
  },

  // validate verifies an access token of RFC 9068 as an API built with oauth4webapi does. It
  // discovers the issuer unless it knows the jwks_uri.
  async validate({ issuer, jwks, audience, token }) {
    const request = new Request(audience, { headers: { authorization: `Bearer ${token}` } })
    const server = jwks ? { issuer, jwks_uri: jwks }
      : await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer), insecure))
    return oauth.validateJwtAccessToken(server, request, audience, insecure)
  }
})
