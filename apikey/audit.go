package apikey

import "time"

// An Event is one entry for an audit log. It never holds key material.
type Event struct {
	// Time is when it happened.
	Time time.Time
	// Action is authenticate, create, import, update, rotate or revoke.
	Action string
	// Verdict is the outcome of authenticate, and [Accepted] or [Denied] for the
	// other actions.
	Verdict Verdict
	// KeyID and Owner name the key. They are empty if no key was found; a caller
	// who presented a wrong key has told nothing that can be trusted.
	KeyID, Owner string
	// Actor is who asked. In an authentication its Principal is that of the key,
	// if the key was accepted.
	Actor Actor
	// Err is why the action failed. It is for operators.
	Err error
}
