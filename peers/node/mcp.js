// The client of the SDK of the Model Context Protocol for TypeScript, with alice's browser.
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { serve } from './serve.js'

let provider

// A Provider keeps what the client knows, as an application does. It sends the browser to
// the authorization server itself.
class Provider {
  authorizations = []

  constructor(redirect, clientID) {
    this.redirectUrl = redirect
    if (clientID) this.information = { client_id: clientID }
  }

  get clientMetadata() {
    return {
      client_name: 'notes', redirect_uris: [this.redirectUrl], token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], application_type: 'native'
    }
  }

  clientInformation() { return this.information }
  saveClientInformation(information) { this.information = information }
  tokens() { return this.saved }
  saveTokens(tokens) { this.saved = tokens }
  codeVerifier() { return this.verifier }
  saveCodeVerifier(verifier) { this.verifier = verifier }
  invalidateCredentials() { this.saved = undefined }

  async redirectToAuthorization(url) {
    this.authorizations.push({ scope: url.searchParams.get('scope') ?? '', resource: url.searchParams.get('resource') ?? '' })
    this.code = await browse(url, this.redirectUrl)
  }
}

// browse follows redirects to the last one, and returns its code.
async function browse(url, redirect) {
  const jar = new Map()
  while (!url.href.startsWith(redirect)) {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ')
    const response = await fetch(url, { redirect: 'manual', headers: { cookie } })
    for (const line of response.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split('=')
      if (value) jar.set(name, value)
      else jar.delete(name)
    }
    const next = response.headers.get('location')
    if (!next) throw new Error(`${url}: ${response.status} ${await response.text()}`)
    url = new URL(next, url)
  }
  const code = url.searchParams.get('code')
  if (!code) throw new Error(`no code: ${url}`)
  return code
}

serve({
  // forget begins with a new client. Without an ID it registers itself.
  async forget({ redirect, clientID }) {
    provider = new Provider(redirect, clientID)
  },

  // call connects to a server and calls a tool, with further header fields. It returns what
  // the tool returns, and the authorizations of the client so far. Like a user, it logs in a
  // few times at most.
  async call({ url, tool, header }) {
    for (let attempt = 0; attempt < 4; attempt++) {
      const client = new Client({ name: 'notes', version: '1' })
      const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider, requestInit: { headers: header } })
      try {
        await client.connect(transport)
        const { content } = await client.callTool({ name: tool })
        await client.close()
        return { text: content[0].text, authorizations: provider.authorizations }
      } catch (error) {
        if (!(error instanceof UnauthorizedError)) throw error
        await transport.finishAuth(provider.code)
      }
    }
    throw new Error(`no end of authorizations: ${JSON.stringify(provider.authorizations)}`)
  }
})
