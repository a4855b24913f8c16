package usher

// A ConfigError is one fault of a Config. Constructors report every fault at once, joined
// by [errors.Join]; [errors.As] finds one of them.
type ConfigError struct {
	// Field is the path of the faulty field, for instance
	// "ratelimit.Config.Policies[1].Key".
	Field string
	// Reason is what is wrong, or what is allowed.
	Reason string
}

// Error returns the field and the reason.
func (e *ConfigError) Error() string { return e.Field + ": " + e.Reason }

// Must returns v, or panics with err if it is not nil. It is for the set-up of a program,
// which must not start with a faulty configuration:
//
//	limits := usher.Must(ratelimit.New(ratelimit.Config{...}))
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err) //nolint:forbidigo // documented
	}
	return v
}
