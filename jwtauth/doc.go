// Package jwtauth verifies JSON Web Tokens and OAuth 2.0 access tokens, and
// issues the tokens of sessions.
//
//	keys, err := jwtauth.NewJWKS(jwtauth.JWKSConfig{URL: "https://issuer.example/jwks"})
//	defer keys.Close()
//	tokens, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{{
//		Issuer:     "https://issuer.example",
//		Audiences:  []string{"https://api.example"},
//		Algorithms: []jwtauth.Algorithm{jwtauth.RS256},
//		Keys:       keys,
//	}}})
//	mux.Handle("GET /orders", usher.Authenticate(tokens).Wrap(listOrders))
//
// [New] makes the [Verifier] of tokens that say for themselves who presents them;
// [NewIntrospection] is for tokens about which the authorization server is asked.
// [Claims] gives a handler the claims in a type of its own. [NewIssuer] logs people
// in and keeps their sessions; its access tokens are those of [ProfileSession].
//
// # Guarantees of verification
//
//   - Nothing is accepted that does not come from a configured issuer, for a
//     configured audience, with an algorithm that is both the issuer's and the
//     key's, and within its life.
//   - A token has one reading: other serialisations and spellings, extensions, JSON
//     with a name twice or in two cases, and text that is not Unicode are refused.
//     What does not have the form of a token costs no allocation in proportion to
//     its length, and nothing in its header is ever fetched.
//   - A token opens no more than it was granted for: scopes are those of scope and
//     scp and of claims that the Config names, a token that is bound to a key of its
//     sender is refused unless Config.Confirm has seen that key, and a token that is
//     known to be for refreshing opens nothing. Servers that do not tell at an
//     introspection need RequiredClaims or TokenPrefix in the IntrospectionConfig.
//   - Tokens are verified once and then remembered, by a keyed hash of the whole. A
//     key that is removed, a revocation, and the end of its life are seen by the
//     next request all the same.
//   - No request waits for published keys but for the first ones, and tokens with
//     invented kids cause one fetch a cool-down. Where none that can be used is
//     fetched, the former keys are used until they are stale; then, and whenever a
//     token cannot be judged, the response is 503 and never 401.
//   - Revocations and an authorization server that hang, panic or fail are a 503
//     within their timeout, and at most a bounded number of calls and requests wait
//     for them. So it is with the store, the Revoker and the Claims of sessions.
//   - What is wrong with a token is told to nobody, unless Config.Answers says so.
//
// # Guarantees of sessions
//
//   - A session has one good refresh token at any time, however many requests
//     exchange it at once: they get the same answer, to the byte. Afterwards its
//     second use ends the session and, with Revocations, its access tokens at once;
//     should that fail in part, the next use of any of its refresh tokens completes
//     it.
//   - An answer that was lost logs nobody out: the client may try again within the
//     grace, and later where the answer was not delivered. See [Issuer].
//   - Refresh tokens are stored as hashes, and the last answer is encrypted under
//     the token that it was given for: a copy of the store alone opens nothing.
//   - No access token is taken for a refresh token, nor the other way round.
//   - A logout ends each session whose token comes with it, whatever else the request
//     holds, and no page of another origin can log anybody in or out by cookies.
//   - A change of the path or domain of the cookies logs nobody out, and a cookie that
//     another host of the domain has planted is not used beside a live one.
//   - Clients are not told why a refresh token is not good; a store that fails is a
//     503 and never a 401.
//   - Signing keys are changed without refusing anybody, and secrets are never
//     published.
//
// # Order
//
// Limits per address stand outside [usher.Authenticate], as a signature costs more
// to check than to invent; [usher.Require] and limits per caller stand inside.
package jwtauth
