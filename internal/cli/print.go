package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// output is the value of -o.
type output string

const (
	outputTable output = ""
	outputJSON  output = "json"
	outputYAML  output = "yaml"
)

// String gives the value, for the flag.
func (o *output) String() string { return string(*o) }

// Type names the flag's value in help.
func (*output) Type() string { return "json|yaml" }

// Set refuses what is neither json nor yaml.
func (o *output) Set(value string) error {
	switch output(value) {
	case outputJSON, outputYAML:
		*o = output(value)
		return nil
	default:
		return fmt.Errorf("must be json or yaml")
	}
}

func outputFlag(command *cobra.Command) *output {
	o := new(output)
	command.Flags().VarP(o, "output", "o", "print as JSON or YAML")
	return o
}

// print writes a value as JSON or YAML.
func (o output) print(w io.Writer, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	data = append(data, '\n')
	if o == outputYAML {
		if data, err = yaml.JSONToYAML(data); err != nil {
			return fmt.Errorf("encode: %w", err)
		}
	}
	_, err = w.Write(data)
	return err
}
