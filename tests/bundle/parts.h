#pragma once

// The entries of the parts: GoogleTest's main(), for the tests of tests/<part>/ alone. To be called once in a process.
extern "C" {
int mlxn_part_cuda(int* argc, char** argv);
int mlxn_part_conformance(int* argc, char** argv);
int mlxn_part_property(int* argc, char** argv);
int mlxn_part_seed(int* argc, char** argv);
int mlxn_part_models(int* argc, char** argv);
}
