// Package config collects the faults of a Config, so that a constructor reports
// all of them at once.
package config

import "errors"

// Reasons that many fields share.
const (
	Required    = "is required"
	NotNegative = "must not be negative"
	NotNil      = "must not be nil"
	NotEmpty    = "must not be empty"
)

// Faults are the faults of one Config. E is usher.ConfigError, whose name a package
// below usher cannot write; *E is an error.
type Faults[E ~struct{ Field, Reason string }] struct {
	path string
	list *[]error
}

// Of returns an empty list of faults of the Config with this name, such as
// "ratelimit.Config".
func Of[E ~struct{ Field, Reason string }](name string) Faults[E] {
	return Faults[E]{path: name, list: new([]error)}
}

// In returns f for the members of a field. Faults added to it are added to f.
func (f Faults[E]) In(field string) Faults[E] {
	return Faults[E]{path: f.path + "." + field, list: f.list}
}

// Add adds a fault of a field.
func (f Faults[E]) Add(field, reason string) {
	e := E(struct{ Field, Reason string }{f.path + "." + field, reason})
	*f.list = append(*f.list, any(&e).(error))
}

// If adds a fault of a field if faulty is true.
func (f Faults[E]) If(faulty bool, field, reason string) {
	if faulty {
		f.Add(field, reason)
	}
}

// Err returns all faults, joined in the order in which they were added, or nil.
func (f Faults[E]) Err() error { return errors.Join(*f.list...) }
