// Package session logs people in and keeps their sessions.
//
//	manager, err := session.New(session.Config{Issuer: "notes", Audiences: []string{"notes"}})
//	sessions, err := session.NewHandler(session.HandlerConfig{Manager: manager})
//	verifier, err := jwtauth.New(jwtauth.Config{Issuers: []jwtauth.TrustedIssuer{manager.TrustedIssuer()}})
//	mux.HandleFunc("POST /login", logIn) // checks the password and calls sessions.Login
//	mux.HandleFunc("POST /refresh", sessions.Refresh)
//	mux.HandleFunc("POST /logout", sessions.Logout)
//	mux.Handle("GET /notes", usher.Authenticate(verifier).Wrap(listNotes))
//
// A login returns an access token, which a [jwtauth.Verifier] accepts, and a refresh
// token, which can be exchanged for new tokens. The login handler is the application's
// own: it calls [Handler.Login] once it knows who the user is. Without a [Store],
// everything is in the memory of the process.
//
// # Guarantees
//
//   - A session has one valid refresh token at any time, however many requests exchange
//     it concurrently: they get the same response, byte for byte. Within the grace that
//     token stays, so the requests of a client may arrive in any order. After it, a
//     second use of a token whose response was used ends the session and, with
//     Revocations, its access tokens at once. If that fails in part, the next use of any
//     refresh token of the session completes it.
//   - A lost response logs nobody out, wherever it was lost: the client may retry within
//     the grace, and even later as long as nobody has used a token of the response. See
//     [Manager].
//   - A refresh may ask for fewer scopes, and never gets more than the session has. A
//     session that is bound to a client is refreshed by that client only.
//   - Refresh tokens are stored as hashes, and the last response is stored encrypted
//     under the token that was exchanged for it: a copy of the store grants nothing.
//   - An access token is never accepted as a refresh token, nor the other way round.
//   - A logout ends each session whose token is in the request, whatever else the request
//     has, and no page of another origin can log anybody in or out by cookies.
//   - To end all sessions of a subject ends, with Revocations, every access token of them
//     at once, and no session that is opened later, although the clocks of the nodes differ
//     by up to 5 minutes.
//   - A cookie that browsers would discard is a fault at construction, or a 500 before
//     anything is stored.
//   - A subject has a bounded number of sessions, however many logins run concurrently:
//     one more ends the session that was refreshed least recently. The subject can list
//     its sessions and end one of them, and nobody can end another subject's. The audit
//     names each session that a login, a logout or the use of a stolen token has ended.
//   - A change of the path or domain of the cookies logs nobody out, and a cookie that
//     another host of the domain has planted is not used instead of a live one.
//   - No response reveals why a refresh token is invalid. A store that fails, hangs or
//     panics leads to a 503 within the timeout, never to a 401, and its error reaches
//     OnError.
//   - Signing keys can be changed without refusing anybody, and secrets are never
//     published.
//
// # Order
//
// Limits per address go outside the handlers for login and refresh, and so does CORS if
// pages of other origins call them. Behind proxies, put a clientip.Resolver outside both;
// events have the address that it finds. Only LogoutAll needs [usher.Authenticate] outside
// it. Inside [usher.Authenticate], Logout also ends the session of the access token.
package session
