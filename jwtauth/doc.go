// Package jwtauth verifies JSON Web Tokens and OAuth 2.0 access tokens, and
// issues the tokens of sessions.
package jwtauth
