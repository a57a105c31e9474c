"""cluster.yaml: Ray takes it, AWS would take it, and it is as closed and as cheap as it says."""

import copy
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND

from serve.environment import FAST
from tests.servers import S3Server

REPO = Path(__file__).resolve().parent.parent
NODE_TYPES = ("head", "cpu", "gpu")


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((REPO / "cluster.yaml").read_text())


def parameters(node_config: dict[str, Any]) -> dict[str, Any]:
    """A node_config as Ray hands it to RunInstances: with counts, and with one of the subnets."""
    rest = {key: value for key, value in node_config.items() if key != "SubnetIds"}
    return {**rest, "SubnetId": node_config["SubnetIds"][0], "MinCount": 1, "MaxCount": 1}


def run_instances_errors(values: dict[str, Any]) -> str:
    model = ServiceModel(Loader().load_service_model("ec2", "service-2"))
    return ParamValidator().validate(values, model.operation_model("RunInstances").input_shape).generate_report()


def test_ray_takes_it(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


def test_ray_would_refuse_a_misspelt_key(cluster: dict[str, Any]) -> None:
    cluster["max_wrokers"] = 3
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(prepare_config(cluster))


@pytest.mark.parametrize("node_type", NODE_TYPES)
def test_aws_would_take_its_machines(cluster: dict[str, Any], node_type: str) -> None:
    values = parameters(cluster["available_node_types"][node_type]["node_config"])
    assert run_instances_errors(values) == ""
    assert "InstanceTpye" in run_instances_errors({**values, "InstanceTpye": "m7i.large"})
    assert "IamInstanceProfile" in run_instances_errors({**values, "IamInstanceProfile": "medsynth-head"})


def test_the_head_is_small_and_does_no_work(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["node_config"]["InstanceType"].endswith(".large")
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_come_from_none_and_cpu_workers_are_spot(cluster: dict[str, Any]) -> None:
    prepared = prepare_config(cluster)["available_node_types"]
    assert set(prepared) == set(NODE_TYPES)
    for node_type in ("cpu", "gpu"):
        assert prepared[node_type]["min_workers"] == 0
        assert prepared[node_type]["max_workers"] > 0
        assert prepared[node_type]["resources"]["CPU"] > 0
    assert prepared["cpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert prepared["gpu"]["resources"]["GPU"] == 1
    assert "GPU" not in prepared["cpu"]["resources"]


def test_nothing_is_open(cluster: dict[str, Any]) -> None:
    assert cluster["provider"]["use_internal_ips"] is True
    assert "security_group" not in cluster["provider"]
    for node_type in cluster["available_node_types"].values():
        # Where a node type names no group, Ray makes one and opens its port 22 to the world.
        assert node_type["node_config"]["SecurityGroupIds"]
        assert "NetworkInterfaces" not in node_type["node_config"]
        assert node_type["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node_type["node_config"]["BlockDeviceMappings"])
    (start,) = [command for command in cluster["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in shlex.split(start)
    assert "0.0.0.0" not in re.sub("#.*", "", (REPO / "cluster.yaml").read_text())
    assert "ssm start-session --target %h" in cluster["auth"]["ssh_proxy_command"]
    assert cluster["auth"]["ssh_proxy_use_node_id"] is True


def test_tokens_are_asked_for_on_every_node(cluster: dict[str, Any]) -> None:
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    for node_type in cluster["available_node_types"].values():
        assert "worker_run_options" not in node_type.get("docker", {})


def test_a_service_deployed_there_finds_the_environment_that_it_is_fast_in(cluster: dict[str, Any]) -> None:
    told = {option for option in cluster["docker"]["run_options"] if "RAY_SERVE" in option}
    assert told == {f"--env {name}={value}" for name, value in FAST.items()}


def test_nodes_are_set_up_from_the_pins(cluster: dict[str, Any]) -> None:
    gpu = cluster["available_node_types"]["gpu"]
    for commands in (cluster["setup_commands"], gpu["worker_setup_commands"]):
        (install,) = [shlex.split(command) for command in commands if "pip install" in command]
        assert install[install.index("-c") + 1] == "/tmp/medsynth/constraints.txt"
        assert install[-1] == "/tmp/medsynth"
    mounted = {Path(there).name: here for there, here in cluster["file_mounts"].items() if "/setup/" in there}
    assert mounted == {name: name for name in ("pyproject.toml", "constraints.txt", "LICENSE", "medsynth")}
    assert all((REPO / here).exists() for here in mounted.values())
    (pin,) = re.findall(r"^ray==(.+)$", (REPO / "constraints.txt").read_text(), flags=re.M)
    python = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python == ">=3.11"
    assert cluster["docker"]["image"] == f"rayproject/ray:{pin}-py311"
    assert gpu["docker"]["worker_image"] == f"rayproject/ray:{pin}-py311-gpu"


@pytest.fixture
def aws(moto_env: S3Server, cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The cluster as Ray completes it, in an account on moto's server with the network that cluster.yaml asks for."""
    ec2 = boto3.resource("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")
    subnet = vpc.create_subnet(CidrBlock="10.0.0.0/24")
    group = vpc.create_security_group(GroupName="medsynth", Description="medsynth")
    own = [{"GroupId": group.id}]
    group.authorize_ingress(IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": own}])
    for profile in ("medsynth-head", "medsynth-worker"):
        boto3.client("iam").create_instance_profile(InstanceProfileName=profile)
    prepared = prepare_config(copy.deepcopy(cluster))
    for node_type in prepared["available_node_types"].values():
        node_type["node_config"] |= {"SecurityGroupIds": [group.id], "SubnetIds": [subnet.id]}
    yield bootstrap_aws(prepared)
    for instance in ec2.instances.all():
        instance.terminate()


def test_ray_starts_its_machines_in_the_closed_group_alone(aws: dict[str, Any]) -> None:
    provider = AWSNodeProvider(aws["provider"], aws["cluster_name"])
    image = next(iter(boto3.resource("ec2").images.all())).id  # moto knows no deep-learning image
    for name in NODE_TYPES:
        node_config = {**aws["available_node_types"][name]["node_config"], "ImageId": image}
        provider.create_node(node_config, {TAG_RAY_NODE_KIND: name}, 1)
    (group,) = aws["available_node_types"]["head"]["node_config"]["SecurityGroupIds"]
    instances = {i.instance_type: i for i in boto3.resource("ec2").instances.all() if i.state["Name"] != "terminated"}
    assert set(instances) == {"m7i.large", "c7i.4xlarge", "g6.2xlarge"}
    assert [kind for kind, i in instances.items() if i.instance_lifecycle == "spot"] == ["c7i.4xlarge"]
    for instance in instances.values():
        assert [item["GroupId"] for item in instance.security_groups] == [group]
    groups = boto3.resource("ec2").security_groups.all()
    assert "0.0.0.0/0" not in str([item.ip_permissions for item in groups])
