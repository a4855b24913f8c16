package usher_test

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
	"github.com/usher-go/usher/jwtauth/session"
	"github.com/usher-go/usher/ratelimit"
)

// A numericConfig is one Config and its constructor.
type numericConfig struct {
	config any // a pointer
	build  func(config any) error
}

func configOf[C, T any](build func(C) (T, error)) numericConfig {
	return numericConfig{new(C), func(c any) error {
		_, err := build(*c.(*C))
		return err
	}}
}

var numericConfigs = []numericConfig{
	configOf(apikey.New),
	configOf(apikey.NewCache),
	configOf(apikey.NewHandler),
	configOf(apikey.NewManager),
	configOf(clientip.New),
	configOf(envelope.New),
	configOf(idempotency.New),
	configOf(idempotency.NewMemory),
	configOf(jwtauth.New),
	configOf(jwtauth.NewIntrospection),
	configOf(jwtauth.NewRevocationMirror),
	configOf(jwk.New),
	configOf(jwk.NewRemote),
	configOf(session.New),
	configOf(session.NewHandler),
	configOf(session.NewMemory),
	configOf(ratelimit.New),
	configOf(ratelimit.NewMemory),
}

// negativeMeans are the fields for which a negative number has a documented meaning.
var negativeMeans = []string{
	"apikey.Config.LastUseInterval",
	"idempotency.Config.Wait",
	"apikey.ManagerConfig.MaxGrace",
	"jwtauth.Config.Leeway",
	"jwtauth.Config.CacheCapacity",
	"jwtauth.IntrospectionConfig.Leeway",
	"jwtauth.IntrospectionConfig.CacheCapacity",
	"session.Config.Grace",
}

// An impossible number or duration is reported exactly once and by its field, whatever
// else is at fault.
func TestEveryNumberOfAConfigIsValidated(t *testing.T) {
	for _, c := range numericConfigs {
		v := reflect.ValueOf(c.config).Elem()
		name := v.Type().String()
		t.Run(name, func(t *testing.T) {
			numbers := make(map[string]func(faulty bool))
			for i := range v.NumField() {
				f := v.Field(i)
				field := name + "." + v.Type().Field(i).Name
				switch {
				case slices.Contains(negativeMeans, field):
				case f.CanInt():
					numbers[field] = func(faulty bool) { f.SetInt(map[bool]int64{true: -1}[faulty]) }
				case f.CanUint():
					numbers[field] = func(faulty bool) { f.SetUint(map[bool]uint64{true: 1<<f.Type().Bits() - 1}[faulty]) }
				}
			}
			check := func(what string, fields ...string) {
				reasons := faults(t, c.build(c.config))
				for _, field := range fields {
					if len(reasons[field]) != 1 {
						t.Errorf("%s: %s has %d faults, want 1: %q", what, field, len(reasons[field]), reasons[field])
					}
				}
				for field := range reasons {
					if !strings.HasPrefix(field, name+".") {
						t.Errorf("%s: a fault of %s", what, field)
					}
				}
			}
			for field, set := range numbers {
				set(true)
				check("alone", field)
				set(false)
			}
			for _, set := range numbers {
				set(true)
			}
			check("all at once", slices.Collect(maps.Keys(numbers))...)
		})
	}
}

// faults returns the reasons of every ConfigError in err, by field.
func faults(t *testing.T, err error) map[string][]string {
	t.Helper()
	reasons := make(map[string][]string)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if err != nil {
			t.Errorf("%T, want joined ConfigErrors: %v", err, err)
		}
		return reasons
	}
	for _, err := range joined.Unwrap() {
		var fault *usher.ConfigError
		if !errors.As(err, &fault) {
			t.Errorf("%T, want a ConfigError: %v", err, err)
			continue
		}
		reasons[fault.Field] = append(reasons[fault.Field], fault.Reason)
	}
	return reasons
}
