package usher

// A ConfigError is one fault of a Config. Constructors report every fault at
// once, joined by [errors.Join]; use [errors.As] for one of them.
type ConfigError struct {
	// Field is the path of the faulty field, for instance
	// "ratelimit.Config.Policies[1].Key".
	Field string
	// Reason says what is wrong and what is allowed.
	Reason string
}

// Error returns the field and the reason.
func (e *ConfigError) Error() string { return e.Field + ": " + e.Reason }
