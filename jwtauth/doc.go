// Package jwtauth verifies JSON Web Tokens and OAuth 2.0 access tokens.
//
//	keys, err := jwk.NewRemote(jwk.RemoteConfig{Issuer: "https://issuer.example"})
//	defer keys.Close()
//	tokens, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
//		Issuer:     "https://issuer.example",
//		Audiences:  []string{"https://api.example"},
//		Algorithms: []jwk.Algorithm{jwk.RS256},
//		Keys:       keys,
//	}}})
//	mux.Handle("GET /orders", usher.Authenticate(tokens).Wrap(listOrders))
//
// [New] makes a [Verifier] of JSON Web Tokens. [NewIntrospection] is for opaque tokens:
// it asks the authorization server about them. One [usher.Authenticate] takes several of
// both, and each verifies the tokens of its own issuers. [Claims] decodes the claims of a
// request's token into a type of the application. [NewResourceMetadata] is for clients,
// such as those of the Model Context Protocol, that look up where to get a token. Package
// jwk has the keys, and package session issues tokens of [ProfileSession] for an
// application's own users.
//
// # Guarantees
//
//   - A token is accepted only if it is from an issuer that is configured, or that
//     Config.ResolveIssuer returns, is for a configured audience, is signed with an
//     algorithm that is both the issuer's and the key's, and has not expired. The audience
//     is in aud, or in a claim that the Config names in its place. Only a field that begins
//     with Dangerously removes one of these conditions.
//   - A token can be read in one way only: other serialisations and spellings,
//     extensions, JSON in which a name occurs twice in one object, and invalid Unicode are
//     refused. So are names in another case of header parameters and of iss, sub, aud,
//     exp, nbf, iat and cnf, and those of other claims that this package reads if the
//     claim is there too. Claims are matched exactly with the fields that they are decoded
//     into. Text that does not have the form of a token costs no allocation in proportion
//     to its length, and nothing in a header is ever fetched.
//   - A token permits no more than was granted: scopes are read only from scope, scp and
//     the claims that the Config names; a token that is bound to a key of its sender is
//     refused unless Config.Confirm accepts the proof; and a token that identifies itself
//     as a refresh token is refused. If introspection by your server does not distinguish
//     refresh tokens from access tokens, set RequiredClaims or TokenPrefix in the
//     IntrospectionConfig.
//   - A token is verified once and then remembered, and recognized only by its whole text.
//     The removal of its key, a revocation, and its exp still take effect at the next
//     request. A [RevocationMirror] keeps a list that several processes share in each of
//     them; while it may have missed a revocation, the response is 503.
//   - If a token cannot be verified because keys, revocations, ResolveIssuer or the
//     authorization server hang, panic or fail, the response is 503 within their timeout,
//     never 401, and only a bounded number of calls and requests wait. The cause reaches
//     OnError.
//   - A page of another origin cannot use a token in a cookie, or one that a proxy adds, to
//     change anything or to open a WebSocket.
//   - No response reveals what is wrong with a token, unless Config.Errors does. The
//     private cause of the error does: it is a [Verdict] with the value that came and the
//     value that was expected. The example of [Verifier.Authenticate] logs it.
//
// # Order
//
// Limits per address go outside [usher.Authenticate], because it costs more to check a
// signature than to invent one; [usher.Require] and limits per caller go inside. CORS goes
// outside too: browsers send no token with a preflight request (OPTIONS), and pages can
// read a refusal only if it has the fields of CORS. See the example CORS.
package jwtauth
