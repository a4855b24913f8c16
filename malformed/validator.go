package malformed

import (
	"reflect"
	"strings"
)

// A fieldError is a validator.FieldError of github.com/go-playground/validator, which this
// module does not link.
type fieldError interface {
	error
	Tag() string
	Param() string
	Kind() reflect.Kind
	Namespace() string
	StructNamespace() string
}

// violation describes what a value must be. The names of other tags, and the parameters of
// those that compare fields, are names of the program.
func violation(e fieldError) string {
	limit := e.Param()
	switch e.Kind() {
	case reflect.String:
		limit += " characters"
	case reflect.Slice, reflect.Array, reflect.Map:
		limit += " items"
	}
	counted := limit != e.Param()
	if e.Param() == "1" {
		limit = strings.TrimSuffix(limit, "s")
	}
	be := "must be "
	if counted {
		be = "must have "
	}
	switch e.Tag() {
	case "required", "required_if", "required_unless", "required_with", "required_with_all", "required_without", "required_without_all":
		return "is required"
	case "gt", "gte", "lt", "lte":
		if e.Param() == "" { // a time, which is compared with now
			return map[byte]string{'g': "must be in the future", 'l': "must be in the past"}[e.Tag()[0]]
		}
	}
	switch e.Tag() {
	case "min", "gte":
		return be + "at least " + limit
	case "max", "lte":
		return be + "at most " + limit
	case "gt":
		return be + "more than " + limit
	case "lt":
		return be + "less than " + limit
	case "len", "eq":
		if counted && e.Tag() == "eq" && e.Kind() == reflect.String {
			break // the value, not a length
		}
		return be + limit
	case "oneof":
		return "must be one of: " + strings.Join(strings.Fields(e.Param()), ", ")
	case "email":
		return "must be an email address"
	case "url", "http_url":
		return "must be a URL"
	case "uri":
		return "must be a URI"
	case "uuid", "uuid3", "uuid4", "uuid5", "uuid_rfc4122":
		return "must be a UUID"
	case "numeric", "number":
		return "must be a number"
	case "boolean":
		return "must be a boolean"
	}
	return "is not valid"
}
