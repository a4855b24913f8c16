// Package usherchi puts the middlewares of usher onto chi.
package usherchi
