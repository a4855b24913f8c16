package config_test

import (
	"errors"
	"testing"

	"github.com/usher-go/usher/internal/config"
)

type fault struct{ Field, Reason string }

func (f *fault) Error() string { return f.Field + ": " + f.Reason }

func TestFaults(t *testing.T) {
	c := config.Of[fault]("limits.Config")
	if err := c.Err(); err != nil {
		t.Errorf("a Config without a fault: %v", err)
	}
	c.If(true, "Store", config.Required)
	c.If(false, "Wait", config.NotNegative)
	policy := c.In("Policies[1]")
	policy.Add("Key", config.NotNil)
	policy.In("Limit").Add("Quota", config.NotNegative)
	const want = "limits.Config.Store: is required\n" +
		"limits.Config.Policies[1].Key: must not be nil\n" +
		"limits.Config.Policies[1].Limit.Quota: must not be negative"
	err := c.Err()
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	first, ok := errors.AsType[*fault](err)
	if !ok || *first != (fault{"limits.Config.Store", "is required"}) {
		t.Errorf("the first fault is %+v", first)
	}
}
