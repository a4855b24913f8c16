// Package usherecho4 puts the middlewares of usher into echo v4.
package usherecho4
