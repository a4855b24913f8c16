// Package ushergin mounts usher's middlewares on gin, version 1.12 or newer.
package ushergin
