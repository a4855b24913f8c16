// Package session logs people in and keeps their sessions.
//
//	manager, err := session.New(session.Config{Issuer: "notes", Audiences: []string{"notes"}})
//	sessions, err := session.NewHandler(session.HandlerConfig{Manager: manager})
//	mux.HandleFunc("POST /refresh", sessions.Refresh)
//	mux.HandleFunc("POST /logout", sessions.Logout)
//
// A session has access tokens, which a [jwtauth.Verifier] accepts, and refresh tokens,
// which are exchanged for new ones. The login handler is the application's own: it calls
// [Handler.Login] once it knows who the user is. [Manager.TrustedIssuer] configures the
// verifier.
package session
